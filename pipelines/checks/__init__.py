"""Feature sets in; whether they are whole and plausible, a page about each and a sheet of its crops out.

spec          what to check: the options of check_features
checking      finds the sets, checks them and prints the pages
rules         what has to hold in every row and every part
summary       counts of a set, and the page about them
published     counts that papers and code report for whole datasets
crop_sheet    a picture of crops with their joints
"""
