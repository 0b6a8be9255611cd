"""DeepFM against loops that spell the formulas out."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm.config import NetworkConfig
from deepfm.model import NUMERIC_LIMIT, DeepFM, second_order


def small_model(sizes=(3, 4), numeric=2, seed=0, **network):
    torch.manual_seed(seed)
    model = DeepFM(
        vocabulary_sizes=sizes, numeric_fields=numeric, network=NetworkConfig(embedding_dim=5, hidden=(7, 3), **network)
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def naive_logit(model, ids, numbers):
    """One row: every weight looked up by hand, every pair of fields multiplied."""
    vectors, logit = [], model.bias.item()
    for field, local in enumerate(ids):
        row = sum(model.vocabulary_sizes[:field]) + local
        vectors.append(model.embedding.weight[row])
        logit += model.first_order.weight[row, 0].item()
    for field, value in enumerate(numbers):
        vectors.append(value * model.numeric_embedding[field])
        logit += value * model.numeric_first_order[field].item()
    for left, right in combinations(vectors, 2):
        logit += torch.dot(left, right).item()
    return logit + model.deep(torch.cat(vectors)[None]).item()


@pytest.mark.parametrize(
    ("sizes", "numeric", "network"),
    [((3, 4), 2, {}), ((3,), 0, {}), ((2, 2, 5), 0, {}), ((3, 4), 1, {"batch_norm": True, "dropout": 0.3})],
)
def test_logit_equals_double_loop_over_fields(sizes, numeric, network):
    model = small_model(sizes, numeric, **network)
    generator = torch.Generator().manual_seed(1)
    ids = torch.stack([torch.randint(0, size, (6,), generator=generator) for size in sizes], dim=1)
    numbers = torch.randn(6, numeric, generator=generator)
    expected = [naive_logit(model, row.tolist(), values.tolist()) for row, values in zip(ids, numbers, strict=True)]
    with torch.inference_mode():
        torch.testing.assert_close(model(ids, numbers), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_second_order_pairs_fields_within_a_dimension():
    """(1,2), (3,4), (5,6): 11 + 17 + 39 = 67; pairing all six numbers would give 175."""
    vectors = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    assert second_order(vectors).tolist() == [67.0]
    flat = vectors.flatten()
    assert 0.5 * (flat.sum() ** 2 - (flat**2).sum()) == 175.0


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**16))
def test_second_order_is_sum_of_dot_products(fields, dimension, seed):
    vectors = torch.randn(3, fields, dimension, generator=torch.Generator().manual_seed(seed))
    expected = [sum((torch.dot(a, b).item() for a, b in combinations(row, 2)), 0.0) for row in vectors]
    torch.testing.assert_close(second_order(vectors), torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_first_order_weight_belongs_to_the_id():
    model = small_model()
    before = model(torch.tensor([[1, 2], [2, 2]]), torch.zeros(2, 2))
    with torch.no_grad():
        model.first_order.weight[1] += 1.0
    after = model(torch.tensor([[1, 2], [2, 2]]), torch.zeros(2, 2))
    torch.testing.assert_close(after - before, torch.tensor([1.0, 0.0]))


def test_fields_do_not_share_rows():
    model = small_model()
    model(torch.tensor([[2, 0]]), torch.zeros(1, 2)).sum().backward()
    touched = model.embedding.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == [2, 3]


def test_parameters_are_split_without_rest_or_overlap():
    model = small_model(batch_norm=True)
    sparse, dense = model.sparse_parameters(), model.dense_parameters()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(parameter)] for parameter in sparse} == {"embedding.weight", "first_order.weight"}
    assert {id(p) for p in sparse}.isdisjoint(id(p) for p in dense)
    assert len(sparse) + len(dense) == len(names)


def test_no_hidden_layer_is_a_linear_deep_part():
    model = DeepFM(vocabulary_sizes=(2,), numeric_fields=0, network=NetworkConfig(hidden=()))
    assert [type(layer).__name__ for layer in model.deep] == ["Linear"]
    assert model(torch.zeros(3, 1, dtype=torch.int64), torch.zeros(3, 0)).shape == (3,)


def test_huge_numbers_leave_the_logit_finite():
    model = small_model()
    numbers = torch.tensor([[1e30, -1e38], [float("inf"), float("-inf")]])
    logits = model(torch.zeros(2, 2, dtype=torch.int64), numbers)
    assert logits.isfinite().all()
    assert logits[0] == logits[1]
    inside = torch.tensor([[NUMERIC_LIMIT * 0.9, 0.0], [NUMERIC_LIMIT * 0.8, 0.0]])
    first, second = model(torch.zeros(2, 2, dtype=torch.int64), inside)
    assert first != second


def test_dropout_and_batch_norm_only_act_in_training():
    model = small_model(dropout=0.5, batch_norm=True)
    ids, numbers = torch.zeros(8, 2, dtype=torch.int64), torch.randn(8, 2)
    assert torch.equal(model(ids, numbers), model(ids, numbers))
    model.train()
    assert not torch.equal(model(ids, numbers), model(ids, numbers))


def test_a_fresh_model_is_nearly_neutral():
    model = DeepFM(vocabulary_sizes=(50, 50), numeric_fields=1, network=NetworkConfig())
    logits = model(torch.arange(50)[:, None].repeat(1, 2), torch.randn(50, 1))
    assert logits.abs().max() < 1.0
    assert logits.std() > 0.0
