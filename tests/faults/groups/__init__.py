"""Groups under load while everything is killed: who owned, read and committed what, as the members themselves tell it.

events.py       what a member tells, in the words of Kafka's VerifiableConsumer and a few more
member.py       a member: a process that reads, commits and tells; Member.java: the same in Java
history.py      the judge: what of all that may not be
kinds.py, team.py   which clients, and the members of one group as processes; observer.py asks what is committed
load.py         groups beside all other clients of a soak, or of power cuts
held.py         members that stand still at each step of a rebalance: `make held`
campaign.py     members of many groups come, go and crash, processes are killed: `make groups`, and tests/faults/test_groups.py
"""
