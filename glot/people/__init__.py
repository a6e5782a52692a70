"""Videos in; the people in them out: tracks, 2D landmarks and boxes.

video         video files read forwards: upright pictures, and the video's timeline
video_scan    a video's timeline, and the cuts between ranges of its pictures
video_packets the packets of a video to pictures with numbers; the places where decoding can begin
video_file    an open video in the format of its suffix; failures of its disk are told from damage
decoding      numbered pictures, decoded; what damage costs
h264_frames   headers of H.264: missing pictures, and halves of interlaced ones
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
retries       what is done when a disk or a store fails
"""
