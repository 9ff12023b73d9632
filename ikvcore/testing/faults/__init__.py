"""The fault harness: processes that are killed, stopped and starved while a recorder notes what they were promised.

    python -m ikvcore.testing.faults [--full] [--only NAME] [--seed N] [--table FILE]

A campaign (campaigns.py) makes a store (target.py), runs seeded work on it (workload.py) in processes of their own
(worker.py, forked by zygote.py), each of which writes down what it tried, what was acknowledged and what it saw
(recorder.py), and does them harm. Then the checker (checker.py) compares the log, the replica and every read with the
model. Any backend and transport can be put under it that processes can share.
"""
