"""The long-lived pair of a real federation: the coordinator, and an agent in each silo.

The coordinator queues runs and keeps their history; for each run it starts the aggregator role, and
tells the agents of the run's silos to start theirs. Whatever model it is, its code runs in role
processes only, and its bytes go from role to role.
"""
