"""The KV cache in fixed-size blocks: sizes, allocation, tables, storage, sharing. No model code lives here."""
