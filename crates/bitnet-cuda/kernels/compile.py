"""Compiles all.cu to PTX with the NVRTC library of a wheel; `cargo xtask ptx` runs it.

usage: compile.py FOLDER_WITH_WHEEL TARGET_ARCHITECTURE...

Prints, for each architecture, a line `== NAME` and the PTX.
"""

import ctypes
import pathlib
import sys
import zipfile


def nvrtc(folder):
    """Unpacks the library, once, and loads it."""
    wheel = next(iter(sorted(folder.glob("nvidia_cuda_nvrtc*.whl"))))
    unpacked = folder / wheel.stem
    if not unpacked.exists():
        zipfile.ZipFile(wheel).extractall(unpacked)
    libraries = unpacked / "nvidia" / "cuda_nvrtc" / "lib"
    # The library opens its other half by name only.
    for builtins in libraries.glob("libnvrtc-builtins*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(next(libraries.glob("libnvrtc.so*"))))


def check(library, program, result):
    if result == 0:
        return
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    sys.exit(f"NVRTC failed with {result}:\n{log.value.decode()}")


def compile_for(library, architecture):
    kernels = pathlib.Path(__file__).parent
    headers = sorted(p for p in kernels.iterdir() if p.suffix in (".cu", ".cuh") and p.name != "all.cu")
    array = ctypes.c_char_p * len(headers)
    program = ctypes.c_void_p()
    texts, names = array(*(p.read_bytes() for p in headers)), array(*(p.name.encode() for p in headers))
    source = (kernels / "all.cu").read_bytes()
    library.nvrtcCreateProgram(ctypes.byref(program), source, b"all.cu", len(headers), texts, names)
    options = [f"--gpu-architecture={architecture}", "--std=c++17", "--fmad=false"]
    given = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    check(library, program, library.nvrtcCompileProgram(program, len(options), given))
    size = ctypes.c_size_t()
    library.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    library.nvrtcGetPTX(program, ptx)
    return ptx.value.decode()


def main():
    library = nvrtc(pathlib.Path(sys.argv[1]))
    for architecture in sys.argv[2:]:
        ptx = compile_for(library, architecture)
        # Comments name the compiler's build; what counts begins here.
        print(f"== {architecture}\n{ptx[ptx.index('.version'):].rstrip()}")


main()
