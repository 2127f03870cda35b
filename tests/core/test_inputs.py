from __future__ import annotations

import pytest
import torch

from lightning_nncf.core.inputs import arguments_of, describe, generate, limit_batch
from lightning_nncf.errors import ConfigError


def test_description_makes_inputs_of_the_same_shapes_and_types() -> None:
    value = ((torch.zeros(2, 3), [torch.tensor([4, 1])]), {"mask": torch.ones(2, dtype=torch.bool), "flag": None})
    made = generate(describe(value), torch.Generator().manual_seed(0))
    (x, [ids]), kwargs = made
    assert x.shape == (2, 3)
    assert x.dtype == torch.float32
    assert ids.dtype == torch.int64
    assert int(ids.max()) <= 4
    assert kwargs["mask"].dtype == torch.bool
    assert kwargs["flag"] is None


def test_value_that_is_no_tensor_is_an_error_naming_its_type() -> None:
    with pytest.raises(ConfigError, match="object"):
        describe((object(),))


def test_mapping_holds_keyword_arguments() -> None:
    args, kwargs = arguments_of({"input_ids": torch.zeros(1)})
    assert args == ()
    assert list(kwargs) == ["input_ids"]


def test_batch_is_cut_where_it_is_the_first_dimension() -> None:
    (x, table), kwargs = limit_batch(((torch.zeros(5, 2), torch.zeros(7, 2)), {"y": torch.zeros(5)}), 2)
    assert x.shape == (2, 2)
    assert table.shape == (7, 2)
    assert kwargs["y"].shape == (2,)
