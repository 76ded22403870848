import re

import numpy as np
import pytest
import torch

from spatial_retrieval.train.losses import second_order_similarity


def _tuples(queries: int = 3, negatives: int = 4, d: int = 5, dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    return (
        torch.randn(queries, d, dtype=dtype),
        torch.randn(queries, d, dtype=dtype),
        torch.randn(queries, negatives, d, dtype=dtype),
    )


@pytest.mark.parametrize(("queries", "negatives"), [(1, 1), (3, 4)])
def test_equals_plain_loops(queries, negatives):
    a, p, n = _tuples(queries, negatives)
    total = 0.0
    for q in range(queries):
        for r in range(negatives):
            far_a = sum((float(a[q, i]) - float(n[q, r, i])) ** 2 for i in range(a.shape[1]))
            far_p = sum((float(p[q, i]) - float(n[q, r, i])) ** 2 for i in range(a.shape[1]))
            total += (far_a - far_p) ** 2
    assert second_order_similarity(a, p, n).item() == pytest.approx(total**0.5 / queries, rel=1e-5)


def test_is_zero_with_a_finite_gradient_where_anchor_and_positive_agree():
    a, _, n = _tuples()
    a.requires_grad_()
    loss = second_order_similarity(a, a.detach().clone(), n)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(a.grad).all()


def test_is_unchanged_by_a_rotation():
    a, p, n = _tuples()
    turn = torch.linalg.qr(torch.randn(5, 5))[0]
    before, after = (
        second_order_similarity(a, p, n),
        second_order_similarity(a @ turn, p @ turn, n @ turn),
    )
    torch.testing.assert_close(before, after)


def test_gradient():
    inputs = [t.requires_grad_() for t in _tuples(dtype=torch.float64)]
    assert torch.autograd.gradcheck(second_order_similarity, inputs)


def test_equals_the_published_loss(shared):
    golden = np.load(shared / "golden" / "parity.npz")
    # −1 query, 1 positive, 0 negative: five tuples of five, each query first
    assert golden["sos_label"].reshape(5, 5).tolist() == [[-1, 1, 0, 0, 0]] * 5
    tuples = torch.from_numpy(golden["sos_x"]).view(5, 5, -1)
    loss = second_order_similarity(tuples[:, 0], tuples[:, 1], tuples[:, 2:])
    assert loss.item() == pytest.approx(float(golden["sos_value"]), rel=1e-6)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_refuses_shapes_that_do_not_belong_together(broken):
    tuples = list(_tuples())
    tuples[broken] = tuples[broken][..., :-1]
    message = "expected anchors (Q, D), positives (Q, D) and negatives (Q, R, D), got"
    with pytest.raises(ValueError, match=re.escape(message)):
        second_order_similarity(*tuples)


def test_refuses_no_queries():
    with pytest.raises(ValueError, match="expected anchors"):
        second_order_similarity(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, 1, 2))
