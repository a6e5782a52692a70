"""A Ray cluster, or Ray on this machine: joining or starting it, and what it can hold.

session      joining or starting Ray
preflight    whether the cluster can hold a run, its GPUs, and which files its nodes see
nodes        the nodes of a cluster: which answer, what is free on them, and asking for more
placement    how many workers fit on nodes
"""
