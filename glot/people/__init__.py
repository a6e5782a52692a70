"""Videos in; the people in them out: tracks, 2D landmarks and boxes.

video         video files read forwards: upright pictures, and the video's timeline
seeking       the same pictures in any order
footage       a video that is read several times from its start
detection     a picture to boxes of people
tracks        boxes in each frame to tracks of people
track_files   boxes of people from files of other programs, and which file belongs to which video
box_formats   what is in these files: JSON, or the MOT challenge's text
frame_boxes   checked boxes of people, and the hash of their content
landmarks     tracks to 2D landmarks, and boxes around them
boxes         2D joints or landmarks to smooth boxes
spool         rows of numbers that wait on disk until they are needed
crop_batches  crops of people to features, some crops at a time
files         sources on a disk or in an object store, opened in one way
source_cache  copies of remote sources on this machine's disk
ranges        a long remote file, read by ranges
versions      what tells one content of a source from another
video_reading parts of video: packets, numbers, decoding, cuts
"""
