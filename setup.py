"""The compiled CPU kernels; everything else about the package is in pyproject.toml."""

from setuptools import Extension, setup

# Plain C, loaded with ctypes (alexnet/ops/native). Where it cannot be compiled the installation goes on, and plain
# torch does the work.
setup(
    ext_modules=[
        Extension(
            "alexnet.ops.native._kernels",
            sources=["alexnet/ops/native/kernels.c"],
            depends=["alexnet/ops/native/block.inc", "alexnet/ops/native/pixels.inc"],
            extra_compile_args=["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"],
            optional=True,
        )
    ]
)
