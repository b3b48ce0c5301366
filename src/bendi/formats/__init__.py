"""What a model file says: the gate that every file passes before an engine sees it.

Knows the GGUF format, its number types, and which contents are impossible, damaged or hostile; safetensors headers with
the `config.json` of their repository; recognises other formats well enough to name them. Reads headers in bounded time
and memory, from files or any `ByteSource`, and trusts nothing. Does not read weights, does not know machines, engines
or where models are kept, and changes nothing.

    info = read_model(path)                 # all parts, checked
    info.architecture, info.quantization, info.context_length
    anatomy(gguf)                           # which layers have attention, a window, a state, experts

Every refusal is a ModelFileError whose message says what is wrong with the file.
"""

from bendi.formats.anatomy import Anatomy, LayerKind, RopeScaling, anatomy
from bendi.formats.gguf import read_gguf, read_gguf_from, read_gguf_parts, read_gguf_split, split_paths
from bendi.formats.gguf_types import GgufArray, GgufFile, TensorInfo, aligned
from bendi.formats.hf_model import HfModel, model_info_from_config, read_hf_folder
from bendi.formats.model_info import ModelInfo, model_info, read_model
from bendi.formats.quant_types import TENSOR_TYPES, TENSOR_TYPES_BY_NAME, TensorType, file_type_name
from bendi.formats.safetensors import SafetensorsFile, read_safetensors
from bendi.formats.source import ByteSource, FileSource, MemorySource
from bendi.formats.tensor_table import SafetensorsTensor

__all__ = [
    "TENSOR_TYPES",
    "TENSOR_TYPES_BY_NAME",
    "Anatomy",
    "ByteSource",
    "FileSource",
    "GgufArray",
    "GgufFile",
    "HfModel",
    "LayerKind",
    "MemorySource",
    "ModelInfo",
    "RopeScaling",
    "SafetensorsFile",
    "SafetensorsTensor",
    "TensorInfo",
    "TensorType",
    "aligned",
    "anatomy",
    "file_type_name",
    "model_info",
    "model_info_from_config",
    "read_gguf",
    "read_gguf_from",
    "read_gguf_parts",
    "read_gguf_split",
    "read_hf_folder",
    "read_model",
    "read_safetensors",
    "split_paths",
]
