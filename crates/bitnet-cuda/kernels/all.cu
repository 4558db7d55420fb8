// All kernels in one translation unit: what one PTX file is made of.
#include "attention_many.cu"
#include "draw.cu"
#include "gemm.cu"
#include "mailbox.cu"
#include "output.cu"
#include "rows.cu"
#include "wave.cu"
