// All GPU kernels in one file to compile: in each, nvcc spends five seconds on PyTorch's headers.

#include "binarize_cuda.cuh"
#include "fake_quantize_cuda.cuh"
#include "sparsify_cuda.cuh"
