"""Weights of other libraries and formats, one module per format, each with the same two functions.

    cell, params = load(source)         a cell of this library, ready to run, with its params
    dump(cell, params)                  the same weights as the other library stores them

`load` finds kind, sizes, layers and directions in the weights. `dump` refuses what the other side cannot say, with a
NotImplementedError that names the feature and a format that can. No other library is imported, except the packages of
the extra `interop` for the files of three formats: onnx, safetensors and h5py (Keras).
"""
