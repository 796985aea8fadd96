"""MLX brings its slow BLAS only on Linux; elsewhere there is no dynamic linker of this kind to ask."""

import sys

collect_ignore = [] if sys.platform == "linux" else ["test_blas.py", "test_scipy_openblas.py"]
