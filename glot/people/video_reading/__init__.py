"""Video files in; numbered and decoded pictures, timelines and cuts out. Other rooms use glot.people.video.

video_file     an open video in the format of its suffix; failures of its disk are told from damage
video_packets  the packets of a video to pictures with numbers; the places where decoding can begin
h264_frames    headers of H.264: missing pictures, and halves of interlaced ones
decoding       numbered pictures, decoded; what damage costs
video_scan     a video's timeline, and the cuts between ranges of its pictures
"""
