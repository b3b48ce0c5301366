"""What a model file says: the gate that every file passes before an engine sees it.

Knows the GGUF format, its number types, and which contents are impossible, damaged or hostile; recognises other
formats well enough to name them. Reads headers in bounded time and memory, from files or any `ByteSource`, and trusts
nothing. Does not read weights, does not know machines, engines or where models are kept, and changes nothing.

    info = read_model(path)                 # all parts, checked
    info.architecture, info.quantization, info.context_length

Every refusal is a ModelFileError whose message says what is wrong with the file.
"""

from bendi.formats.gguf import read_gguf, read_gguf_from, read_gguf_split, split_paths
from bendi.formats.gguf_types import GgufArray, GgufFile, TensorInfo
from bendi.formats.model_info import ModelInfo, model_info, read_model
from bendi.formats.quant_types import TENSOR_TYPES, TENSOR_TYPES_BY_NAME, TensorType, file_type_name
from bendi.formats.source import ByteSource, FileSource, MemorySource

__all__ = [
    "TENSOR_TYPES",
    "TENSOR_TYPES_BY_NAME",
    "ByteSource",
    "FileSource",
    "GgufArray",
    "GgufFile",
    "MemorySource",
    "ModelInfo",
    "TensorInfo",
    "TensorType",
    "file_type_name",
    "model_info",
    "read_gguf",
    "read_gguf_from",
    "read_gguf_split",
    "read_model",
    "split_paths",
]
