#!/usr/bin/env python3
"""A GGUF of float32 weights that lie on no lattice, from a quantised one: for measuring what number formats cost.

    python3 tools/noised_gguf.py SOURCE.gguf -o OUT.gguf [--seed 1]

The values of a quantised file are multiples of its steps, which some types hold exactly and others do not. Here each gets uniform
noise of up to half its own step, up or down: what float weights may have been before they were rounded, with the
knowledge of the model left. The other tensors and all metadata are copied. Needs numpy and gguf.
"""

import argparse
import os
import sys

import gguf
import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import export  # noqa: E402

SLICE = 1 << 22  # weights at a time


def noised(t, rng):
    """The values of a tensor of a GGUF (rows, cols), with noise where it has steps."""
    if t.dtype not in export.UNPACK:
        return t.f32()
    own, out = export.UNPACK[t.dtype][0], np.empty((t.rows, t.cols), np.float32)
    step = max(1, SLICE // t.cols)
    for a in range(0, t.rows, step):
        b = min(t.rows, a + step)
        q, scales = t.kept(export.TYPES.index(own), a, b)
        noise = rng.uniform(-0.5, 0.5, q.shape).astype(np.float32)
        out[a:b] = own.dequantize(q, scales) + noise * np.repeat(own.factors(*scales)[0], own.share, axis=1)
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("source", metavar="SOURCE")
    p.add_argument("-o", "--output", required=True, metavar="FILE")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    reader, rng = gguf.GGUFReader(a.source), np.random.default_rng(a.seed)
    writer = gguf.GGUFWriter(a.output, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            array = field.types[0] == gguf.GGUFValueType.ARRAY
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if array else None)
    file = export.File(a.source)
    for t in reader.tensors:
        shape = [int(n) for n in reversed(t.shape)]
        data = export.Numbers(file, int(t.data_offset), int(t.n_bytes), np.dtype("u1"))
        if t.tensor_type.name not in export.GGUF_BLOCKS:
            data = export.Numbers(file, int(t.data_offset), int(t.n_elements), export.SAFETENSORS_TYPES[t.tensor_type.name])
        writer.add_tensor(t.name, noised(export.Stored(t.name, shape, t.tensor_type.name, data), rng).reshape(shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
