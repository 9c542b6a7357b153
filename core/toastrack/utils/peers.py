"""What other libraries call their arguments, and what takes their place here."""

from __future__ import annotations

_PROMPTS = (
    "query_prompt= and document_prompt= replace the prompts; left out, they are the model's own"
)
_UNIT = "vectors always have length 1, so leave it out"
_LOADING = "the model's loading is device=, precision= and engine=, and never code of its own"
_BATCHES = "texts are put into batches by themselves, so leave it out"
_CACHE = "models are in the hub's cache, which HF_HOME moves"
_HOSTED = "the model runs here; no key or address is needed, so leave it out"

ARGUMENTS = {
    # sentence-transformers' words, as HuggingFaceEmbeddings and Chroma's function pass them on
    "model_name_or_path": "the model is model=, a hub name or a folder",
    "model_name": "the model is model=, a hub name or a folder",
    "repo_id": "the model is model=, a hub name or a folder",
    "model_id": "the model is model=, a hub name or a folder",
    "model_kwargs": _LOADING,
    "trust_remote_code": _LOADING,
    "backend": _LOADING,
    "tokenizer_name": "the tokenizer is the model's own",
    "pooling": "the pooling is the model's own",
    "encode_kwargs": f"{_UNIT}; {_BATCHES}",
    "query_encode_kwargs": _PROMPTS,
    "normalize_embeddings": _UNIT,
    "normalize": _UNIT,
    "prompts": _PROMPTS,
    "default_prompt_name": _PROMPTS,
    "query_instruction": _PROMPTS,
    "text_instruction": _PROMPTS,
    "embed_instruction": _PROMPTS,
    "instruction": _PROMPTS,
    "truncate_dim": "fewer numbers of a vector are dimensions=",
    "output_dimensionality": "fewer numbers of a vector are dimensions=",
    "max_length": "the limit in tokens is max_tokens=",
    "max_seq_length": "the limit in tokens is max_tokens=",
    "embedding_ctx_length": "the limit in tokens is max_tokens=",
    "truncate": "on_truncate= says what happens to a text over the limit",
    "cache_folder": _CACHE,
    "cache_dir": _CACHE,
    "batch_size": _BATCHES,
    "chunk_size": _BATCHES,
    "parallel": _BATCHES,
    "multi_process": _BATCHES,
    "parallel_process": _BATCHES,
    "target_devices": "device= is one device, such as 'cuda:0'",
    "threads": (
        "sentence-transformers takes OMP_NUM_THREADS from the environment, and openvino the "
        "processors that the process may use (taskset)"
    ),
    "show_progress": "a progress bar is ingest's, with on_progress=",
    "show_progress_bar": "a progress bar is ingest's, with on_progress=",
    "preferred_providers": "what runs the model is engine= and device=",
    "providers": "what runs the model is engine= and device=",
    "doc_embed_type": "queries and documents are told apart by the method that is called",
    "input_type": "queries and documents are told apart by the method that is called",
    "api_key": _HOSTED,
    "api_base": _HOSTED,
    "base_url": _HOSTED,
}


def explain_argument(owner: str, name: str) -> str:
    """Say that a class has no argument of a name, and what it has in its place."""
    ours = ARGUMENTS.get(name)
    hint = "" if ours is None else f": {ours}"
    return f"{owner} has no argument {name!r}{hint}."
