# %% setup=true
from grader import check

# %% [markdown]
# <!-- head: store_kv -->

# %% exercise="store_kv" stub="store_kv_kernel" minutes="25" difficulty="2" points="2"
from tinyllm.kernels.store_kv import store_kv

# %% check="store_kv"
check(store_kv)

# %% [markdown]
# <!-- head: paged_decode -->

# %% exercise="paged_decode" stub="page_slots,softmax_step,attend_pages" minutes="40" difficulty="4" points="3"
from tinyllm.kernels.paged_decode import paged_decode

# %% check="paged_decode"
check(paged_decode)

# %% [markdown]
# <!-- head: paged_decode_split -->

# %% exercise="paged_decode_split" stub="attend_split,reduce_splits" minutes="30" difficulty="3" points="2"
from tinyllm.kernels.paged_decode_split import paged_decode_split

# %% check="paged_decode_split"
check(paged_decode_split)

# %% [markdown]
# <!-- head: paged_prefill -->

# %% exercise="paged_prefill" stub="attend_chunk" minutes="35" difficulty="4" points="3"
from tinyllm.kernels.paged_prefill import paged_prefill

# %% check="paged_prefill"
check(paged_prefill)
