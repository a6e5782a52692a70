"""The options of official and publish are checked before torch is imported."""

from pathlib import Path

import pytest

from glot.errors import InputError
from glot.models.spec import OfficialSpec, PublishSpec


def test_mistakes_name_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    best, file = tmp_path / "best", tmp_path / "file"
    best.mkdir()
    file.touch()
    with pytest.raises(InputError, match="--checkpoint .*worst: there is no such folder"):
        PublishSpec(checkpoint=tmp_path / "worst", out=tmp_path / "out")
    with pytest.raises(InputError, match="--out .*file: is a file"):
        PublishSpec(checkpoint=best, out=file)
    with pytest.raises(InputError, match="--checkpoint .*worst: there is no such folder"):
        OfficialSpec(checkpoint=tmp_path / "worst", out=file)
    with pytest.raises(InputError, match="--out .*best: is a folder"):
        OfficialSpec(checkpoint=best, out=best)
    with pytest.raises(InputError, match="--body .*nobody: there is no such body file"):
        OfficialSpec(checkpoint=best, out=file, body=tmp_path / "nobody")
    with pytest.raises(InputError, match="no SMPL in .*body; download"):
        OfficialSpec(checkpoint=best, out=file).with_body()


def test_smpl_in_the_home_folder_is_the_default_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    (tmp_path / "best").mkdir()
    (tmp_path / "body").mkdir()
    (tmp_path / "body" / "SMPL_NEUTRAL.pkl").touch()
    spec = OfficialSpec(checkpoint=tmp_path / "best", out=tmp_path / "o.pth.tar").with_body()
    assert spec.body == tmp_path / "body"
