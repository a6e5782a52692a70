"""The content of a file of boxes in, in one of two formats; the boxes of the people of one video or of many out.

json_tracks   the boxes of one video or of many in a JSON file
json_stream   a JSON file of any size, value by value
mot_files     the boxes of one video in the MOT challenge's text
"""
