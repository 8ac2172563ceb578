"""How calls are answered that no C file answers: by a rule for a family of names, or refused, named and counted.

A call may be done by a rule only if it hands nothing back but a status, a new handle, or a number that the rule states.
The first rule whose pattern is the whole name holds. What no rule names is refused with the library's own error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What calls of some names do; arguments are counted from 0."""

    names: str
    """Pattern of the whole name."""
    effect: str = ""
    """Statements of C, in which `a0` to `a18` are the arguments as integers; none: work on the stream of a handle."""
    status: int = 0
    """What is returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A library of NVIDIA's: how its file and its functions are called, how it refuses, and its rules."""

    file: str
    """Name of the file without its number."""
    names: str
    """Pattern of the names of functions that do not say which library they come from."""
    refusal: int
    """Status for what is not supported."""
    rules: tuple[Rule, ...] = field(default=())

    def rule_for(self, name: str) -> Rule | None:
        """Return the rule for a function; `None` if it is refused."""
        return next((rule for rule in self.rules if re.fullmatch(rule.names, name)), None)


def _new(names: str, argument: int = 0) -> Rule:
    return Rule(names=names, effect=f"*(void **)a{argument} = dl_handle_new();")


def _drop(names: str) -> Rule:
    return Rule(names=names, effect="dl_handle_delete((void *)a0);")


def _zero(names: str, argument: int, kind: str) -> Rule:
    """Answer with 0 where the result goes to the host; on the device it is what was there."""
    return Rule(
        names=names,
        effect=f"if (!dl_is_device((void *)a{argument})) memset((void *)a{argument}, 0, sizeof({kind})); "
        "dl_library_work((void *)a0);",
    )


def _elements(names: str, argument: int, rows: int, columns: int) -> Rule:
    """Ask for scratch of as many elements as the matrix has."""
    return Rule(names=names, effect=f"*(int *)a{argument} = (int)a{rows} * (int)a{columns};")


def _bytes(names: str, argument: int, rows: int, columns: int) -> Rule:
    """Ask for scratch of as many elements of 8 bytes as the matrix has, and for none on the host."""
    size = f"*(size_t *)a{argument} = 8 * (size_t)(a{rows} * a{columns}); *(size_t *)a{argument + 1} = 0;"
    return Rule(names=names, effect=size)


_BLAS_RESULTS = (
    _zero(r"cublasI[sdcz]am(ax|in)_v2", 4, "int"),
    _zero(r"cublas(Sn|Scn)rm2_v2|cublasSc?asum_v2", 4, "float"),
    _zero(r"cublas(Dn|Dzn)rm2_v2|cublasDz?asum_v2", 4, "double"),
    _zero(r"cublasSdot_v2", 6, "float"),
    _zero(r"cublasDotEx", 8, "short"),
    _zero(r"cublas(Ddot|Cdot[uc])_v2", 6, "double"),
    _zero(r"cublasZdot[uc]_v2", 6, "struct { double parts[2]; }"),
)

_DENSE = r"cusolverDn[SDCZ]"

LIBRARIES = (
    Library(
        file="libcudart.so",
        names=r"(__)?cuda[A-Z]\w*",
        refusal=801,
        # What follows what in a graph is not kept.
        rules=(Rule(names=r"cudaStreamUpdateCaptureDependencies(_v2)?", effect=";"),),
    ),
    Library(file="libcuda.so", names=r"cu(?!File)[A-Z]\w*", refusal=801),
    Library(file="libnvidia-ml.so", names=r"nvml\w+", refusal=3),
    Library(
        file="libcublasLt.so",
        names=r"cublasLt\w+",
        refusal=15,
        rules=(
            _new(r"cublasLt(Create|MatmulDescCreate|MatrixLayoutCreate|MatmulPreferenceCreate)"),
            _drop(r"cublasLt(Destroy|MatmulDescDestroy|MatrixLayoutDestroy|MatmulPreferenceDestroy)"),
            Rule(names=r"cublasLt(MatmulDesc|MatrixLayout|MatmulPreference)SetAttribute"),
        ),
    ),
    Library(
        file="libcublas.so",
        names=r"cublas(?!Lt)\w+",
        refusal=15,
        rules=(
            _new(r"cublasCreate_v2"),
            _drop(r"cublasDestroy_v2"),
            *_BLAS_RESULTS,
            Rule(names=r"cublasSet(Workspace_v2|SmCountTarget|AtomicsMode)"),
            # Level 1 to 3 and their batches: all that they give lies on the device.
            Rule(names=r"cublas[SDCZ][sd]?(axpy|copy|rot|rotm|scal|swap)_v2"),
            Rule(
                names=r"cublas[SDCZ](gemv|ger[cu]?|hemv|her2?|symv|syr2?|trmv|trsv|gemm3?m?|hemm|her2?k|symm|syr2?k|trmm|trsm)_v2"
            ),
            Rule(
                names=r"cublas[SDCZH](gemm|gemmStrided|trsm)Batched|cublas[SC]?Gemm(StridedBatched|Batched)?Ex|cublas[SC]gemmEx"
            ),
            Rule(names=r"cublas[SDCZ](getrf|getri|matinv)Batched"),
            # These give a status to the host, which is for arguments that make no sense alone.
            _zero(r"cublas[SDCZ]geqrfBatched", 6, "int"),
            _zero(r"cublas[SDCZ]getrsBatched", 9, "int"),
            _zero(r"cublas[SDCZ]gelsBatched", 9, "int"),
        ),
    ),
    Library(
        file="libcudnn.so",
        names=r"cudnn\w+",
        refusal=3000,
        rules=(
            _drop(
                r"cudnnDestroy(?!Dropout|RNN|Filter|Tensor)\w*|cudnnDestroy(Dropout|RNN|RNNData|Filter|Tensor)Descriptor"
            ),
            Rule(names=r"cudnn(Convolution|BatchNormalization|SpatialTf|Pooling)\w*"),
            Rule(names=r"cudnnCTCLoss(_v8)?"),
            Rule(names=r"cudnnRNN(Forward|BackwardData_v8|BackwardWeights_v8)"),
            Rule(names=r"cudnnSet(Activation|CTCLoss|Convolution|Pooling2d|SpatialTransformerNd|RNNData)\w*"),
            Rule(names=r"cudnn(Set|Restore)DropoutDescriptor"),
        ),
    ),
    Library(
        file="libcusparseLt.so",
        names=r"cusparseLt\w+",
        refusal=10,
        rules=(
            Rule(names=r"cusparseLt(Init|Destroy|MatDescriptorDestroy)"),
            Rule(names=r"cusparseLt(Dense|Structured)DescriptorInit"),
            Rule(names=r"cusparseLtMatmul(DescriptorInit|AlgSelectionInit|PlanInit|PlanDestroy|Search)?"),
            Rule(names=r"cusparseLtMatmul(Alg|Desc)SetAttribute"),
            Rule(names=r"cusparseLtMatmulGetWorkspace", effect="*(size_t *)a2 = 0;"),
        ),
    ),
    Library(
        file="libcusparse.so",
        names=r"cusparse(?!Lt)\w+",
        refusal=10,
        rules=(
            Rule(names=r"cusparseCreateIdentityPermutation"),
            _new(r"cusparseCreate\w*"),
            _drop(r"cusparseDestroy\w*"),
            _new(r"cusparse(SpSV|SpSM)_createDescr"),
            _drop(r"cusparse(SpSV|SpSM)_destroyDescr"),
            Rule(names=r"cusparse(CsrSetPointers|CsrSetStridedBatch|DnMatSetStridedBatch|SpMatSetAttribute)"),
            Rule(names=r"cusparseSet(MatDiagType|MatFillMode|MatIndexBase|MatType|PointerMode|Stream)"),
            # Products, solves and sorts ask for no scratch here; a real library asks for little.
            Rule(names=r"cusparse(SpMM|SDDMM|SpSM)_bufferSize", effect="*(size_t *)a10 = 0;"),
            Rule(names=r"cusparse(SpMV|SpSV)_bufferSize", effect="*(size_t *)a9 = 0;"),
            Rule(names=r"cusparseX(csr|coo)sort_bufferSizeExt", effect="*(size_t *)a6 = 0;"),
            Rule(names=r"cusparse[SDCZ]bsrsv2_bufferSize", effect="*(int *)a11 = 0;"),
            Rule(names=r"cusparse[SDCZ]bsrsm2_bufferSize", effect="*(int *)a13 = 0;"),
            Rule(names=r"cusparseX(bsrsv2|bsrsm2)_zeroPivot", effect="*(int *)a2 = -1;"),
            Rule(names=r"cusparse(SpMM|SpMV|SDDMM|SDDMM_preprocess|(SpSV|SpSM)_(analysis|solve))"),
            Rule(names=r"cusparse[SDCZ](bsrmm|bsrmv|bsrsv2_\w+|bsrsm2_\w+)"),
            Rule(names=r"cusparse(Xcoo2csr|XcoosortByRow|Xcsrsort)"),
        ),
    ),
    Library(
        file="libcusolver.so",
        names=r"cusolver\w+",
        refusal=9,
        rules=(
            _new(r"cusolverDnCreate\w*"),
            _drop(r"cusolverDnDestroy\w*"),
            Rule(names=r"cusolverDnXgesvdjSet\w+"),
            _elements(_DENSE + r"potrf_bufferSize", 5, 2, 2),
            _elements(_DENSE + r"(getrf|geqrf)_bufferSize", 5, 1, 2),
            _elements(_DENSE + r"gesvd_bufferSize", 3, 1, 2),
            _elements(_DENSE + r"gesvdj_bufferSize", 12, 3, 4),
            _elements(_DENSE + r"gesvdjBatched_bufferSize", 11, 2, 3),
            _elements(_DENSE + r"gesvdaStridedBatched_bufferSize", 16, 3, 4),
            _elements(_DENSE + r"(sy|he)(evd|evj|evjBatched)_bufferSize", 7, 3, 3),
            _elements(_DENSE + r"sytrf_bufferSize", 4, 1, 1),
            _elements(_DENSE + r"(or|un)gqr_bufferSize", 7, 1, 2),
            _elements(_DENSE + r"(or|un)mqr_bufferSize", 11, 3, 4),
            _bytes(r"cusolverDnXgeqrf_bufferSize", 10, 2, 3),
            _bytes(r"cusolverDnXpotrf_bufferSize", 8, 3, 3),
            _bytes(r"cusolverDnXsyev(d|Batched)_bufferSize", 11, 4, 4),
            _bytes(r"cusolverDnXgeev_bufferSize", 17, 4, 4),
            _bytes(r"cusolverDnXsytrs_bufferSize", 11, 2, 3),
            Rule(names=r"cusolverDn[SDCZX][a-z]+\w*(?<!bufferSize)"),
        ),
    ),
    Library(
        file="libcufft.so",
        names=r"cufft\w+",
        refusal=16,
        rules=(Rule(names=r"cufft(SetStream|SetWorkArea|XtExec)", effect=";"),),
    ),
    Library(file="libcurand.so", names=r"curand\w+", refusal=204),
    Library(file="libnvrtc.so", names=r"nvrtc\w+", refusal=11),
    Library(
        file="libnccl.so",
        names=r"nccl\w+",
        refusal=5,
        rules=(Rule(names=r"nccl(GroupStart|GroupEnd|RedOpDestroy)", effect=";"),),
    ),
    Library(
        file="libcupti.so",
        names=r"cupti\w+",
        refusal=27,
        rules=(
            # A profile holds no kernels, since none runs; everything else of it is torch's.
            _new(r"cuptiSubscribe\w*"),
            Rule(names=r"cuptiActivityGetNextRecord", status=12),
            Rule(names=r"cuptiActivityGetNumDroppedRecords", effect="*(size_t *)a2 = 0;"),
            Rule(names=r"cuptiActivityPopExternalCorrelationId", effect="if (a1) *(uint64_t *)a1 = 0;"),
            Rule(names=r"cuptiGetVersion", effect="*(uint32_t *)a0 = CUDA_VERSION;"),
            Rule(names=r"cuptiGetResultString", effect='*(const char **)a1 = "CUPTI without a driver";'),
            Rule(names=r"cuptiGetCallbackName", effect='*(const char **)a2 = "unknown";'),
            Rule(names=r"cupti(Activity\w+|Enable\w+|Finalize|Unsubscribe)"),
        ),
    ),
    Library(file="libcufile.so", names=r"cuFile\w+", refusal=5001),
    Library(
        file="libnvshmem_host.so",
        names=r"nvshmem\w+",
        refusal=0,  # its answers are pointers and states, and 0 is none of either
    ),
    Library(file="libnvToolsExt.so", names=r"nvtx\w+", refusal=0, rules=(Rule(names=r"nvtx\w+"),)),
    Library(file="libnvJitLink.so", names=r"__?nvJitLink\w+|nvJitLink\w+", refusal=3),
)


def library_of(name: str) -> Library | None:
    """Return the library of a function that does not say which it comes from; `None` if it is none of NVIDIA's.

    >>> library_of("cublasLtMatmul").file, library_of("cuFileRead").file, library_of("malloc")
    ('libcublasLt.so', 'libcufile.so', None)
    """
    return next((one for one in LIBRARIES if re.fullmatch(one.names, name)), None)


def library_in(file: str) -> Library | None:
    """Return the library whose file has a name, whatever its number; `None` if it is none of NVIDIA's.

    >>> library_in("libcudart.so.13").names, library_in("libc.so.6")
    ('(__)?cuda[A-Z]\\\\w*', None)
    """
    return next((one for one in LIBRARIES if file == one.file or file.startswith(one.file + ".")), None)
