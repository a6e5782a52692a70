"""Motions and a body in, rendered people with exact labels out: single pictures, or the open sample in 3DPW's layout.

spec                    options of make_sample, recipes, settings of a sample
people_splits           which clips of a bench belong to which split: by the people in them
sequence_plan           which sequences a sample has, and which clips belong to which split
sequence                one sequence: people, pictures, annotation file
posed_person            a body moved by a clip, standing on the floor
appearance              light, floors, panoramas, clothes, obstacles, the camera's sensor
camera_paths            paths of a camera in a hand or on a tripod
rich_backgrounds        the look "rich": floors and panoramas
rich_objects            its light, furniture, plants, occluders
rich_people             its clothes, and the shadows that bodies cast on bodies
rich_sensor             its cameras' exposure, blur, grain, compression
rich_filming            its pictures
filming                 pictures of people and the visibility of their joints; single renders for pretraining
threedpw_annotations    the record of a sequence with 3DPW's keys
legacy_pickle           Python-2 pickles, as 3DPW's files are
sample_dataset          a sample made, or continued, in a folder
sample_summary          what a sample holds, its seconds and its hash
sample_sheet            a picture of some sequences of a sample
render_folder           checks of the settings with which a folder of renders was made
render_processes        rendering jobs in several processes
"""
