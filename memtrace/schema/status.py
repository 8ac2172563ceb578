"""The status of a running recording: one small file a process, written over in place, for `memtrace live`.

It stands beside the main part as `<name>.status.json` and holds one JSON object, filled up with spaces to
`STATUS_BYTES`. It is no part of the trace: whoever assembles the parts leaves it out.

    step, phase, since_ns          step and phase that run, and the Unix time at which the phase began
    ended_step                     last step that ended
    measured_step                  step at whose end the following were read: not every one, since reading costs time
    device, allocated_bytes, peak_allocated_bytes, reserved_bytes, num_alloc_retries
                                   what the allocator of the device says; the peak is the largest that it has seen
    categories_step, by_category   bytes that owners held at the end of that step, each storage once; steps that are not
                                   recorded have none
"""

from __future__ import annotations

STATUS_SUFFIX = ".status.json"
STATUS_BYTES = 1024
