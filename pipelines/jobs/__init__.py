"""The one job runner, on Ray Data: tasks of several items in, the result of each item out, whatever dies meanwhile.

worker_pool       pools of workers that follow the cluster, tasks, the Ray session
pool_worker       the base of all workers: one item after the other, failures by their kind
bookkeeper        what is done, who works on what, who died; an actor on the driver's node
separate_process  a call in a process of its own, whose crash is seen
job_progress      the counts of a job, and the progress line
"""
