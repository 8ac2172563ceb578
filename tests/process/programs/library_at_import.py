"""Stands for a library that binds what only a CUDA build of torch has when it is imported, as bitsandbytes does."""

import torch

raw_stream = torch._C._cuda_getCurrentRawStream
from torch._C import _cuda_getDeviceCount, _cuda_record_memory_history  # noqa: E402

# As torchvision compares the CUDA that it was built for: with that of the torch that `pip install torch` gives.
MAJOR, _MINOR = torch.version.cuda.split(".")


@torch.compile
def never_called(one):
    return one + 1


def check():
    assert raw_stream(0) == 0
    assert _cuda_getDeviceCount() == torch.cuda.device_count()
    assert torch._C._cuda_getCompiledVersion() // 1000 == int(MAJOR)
    try:
        _cuda_record_memory_history(True)
    except NotImplementedError as error:
        said = str(error)
    assert "_cuda_record_memory_history" in said


check()
model = torch.nn.Linear(8, 8).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model(torch.ones(2, 8, device="cuda")).sum().backward()
optimizer.step()
print("done")
