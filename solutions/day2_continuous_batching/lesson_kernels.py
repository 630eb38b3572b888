# %% [markdown]
# <!-- head: store_kv -->

# %% exercise="store_kv" stub="store_kv_kernel" minutes="25" difficulty="2" points="2"
from tinyllm.kernels.store_kv import store_kv

# %% check="store_kv"
check(store_kv)
