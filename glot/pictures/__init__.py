"""Predicted bodies and the pictures of a video or dataset in; pictures (.png), videos (.mp4) and a page of bodies out.

spec             options of the commands render and view
rendering        render: chooses a track, draws it, writes the files
track_pictures   a track's bodies over its pictures and from the side
track_strip      contact strip and video of a track
comparison       bodies before and after the local branch's correction
model_comparison the bodies of several models side by side
several_models   render --compare A B: loads the models, predicts one track, writes the files
attention_figure which frames the global branch attends to
person_sheet     contact sheet of one person of a video
film             a video with all of its people's bodies
contact_sheet    panels in a grid, with title, names of rows and captions
drawing          a body over a picture, a side view, a line of text, a video file
renderer         software renderer: meshes, a camera and a light to a picture
rasterizer       triangles to the nearest triangle at each pixel, for the renderer
surroundings     floor, panorama, light and shadows, for the renderer
viewer           view: the page in the browser and its controls
viewer_scene     the bodies and the picture on that page
"""
