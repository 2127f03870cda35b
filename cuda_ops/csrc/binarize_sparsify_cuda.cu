// The smaller GPU kernels in one file to compile: in each, nvcc spends five seconds on PyTorch's headers.

#include "binarize_cuda.h"
#include "sparsify_cuda.h"
