# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Day 2: attention over pages, and continuous batching

# %% [markdown]
# <!-- head: paged_attention -->

# %% exercise="paged_attention" stub="paged_attention" minutes="30" difficulty="3" points="3"
from tinyllm.engine.paged_attention import paged_attention

# %% check="paged_attention"
check(paged_attention)

# %% [markdown]
# <!-- head: merge_attention_states -->

# %% exercise="merge_attention_states" stub="merge_attention_states" minutes="20" difficulty="2" points="2"
from tinyllm.kernels.reference import merge_attention_states

# %% check="merge_attention_states"
check(merge_attention_states)

# %% [markdown]
# <!-- head: Scheduler -->

# %% exercise="Scheduler" stub="schedule_known_tokens,schedule_running,preempt_last,admit_waiting" minutes="45" difficulty="4" points="5"
from tinyllm.engine.scheduler import Scheduler

# %% check="Scheduler"
check(Scheduler)
