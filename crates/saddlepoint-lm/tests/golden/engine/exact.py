"""Runs transformers models in true float64.

Their norms, rotary embeddings and softmax convert to float32 on purpose. Inside `Exact` those
conversions give float64 instead, so values and gradients are exact to about 1e-13 and the golden
files do not depend on anybody's order of summation.
"""

import torch
from torch.overrides import TorchFunctionMode

WIDEN = {torch.float32: torch.float64}


class Exact(TorchFunctionMode):
    """Within this context nothing is computed in float32."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.float:
            return args[0].double()
        if "dtype" in kwargs:
            kwargs["dtype"] = WIDEN.get(kwargs["dtype"], kwargs["dtype"])
        args = tuple(WIDEN.get(a, a) if isinstance(a, torch.dtype) else a for a in args)
        return func(*args, **kwargs)


def widen(model):
    """The model in float64, its rotary frequencies recomputed in float64. Use within `Exact`."""
    model = model.double()
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            fresh = type(module)(module.config)
            assert fresh.inv_freq.dtype == torch.float64
            module.inv_freq = fresh.inv_freq
            module.original_inv_freq = fresh.original_inv_freq
    return model
