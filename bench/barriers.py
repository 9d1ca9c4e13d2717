"""How threads wait for each other. Imports nothing: torch reads it when it is first imported."""

# OpenMP threads that spin at a barrier wait for one that the host has descheduled: on two shared
# cores a training step took thirty times longer so. Waiting passively costs microseconds.
WORKER_VARIABLES = {"OMP_WAIT_POLICY": "PASSIVE"}
