"""Each optimizer against the formula of its paper, in float64 numpy."""

import mindspore as ms
import numpy as np
import psutil
import pytest
from mindspore import Parameter, Tensor, nn

from fcnlab.training.optimizers import SGD, Adam, AdamW

LEARNING_RATE = 0.01


class Update(nn.Cell):
    """One graph for all steps: MindSpore compiles tensors that it is given in a tuple as constants."""

    def __init__(self, optimizer):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer

    def construct(self, learning_rate, *gradients):
        self.optimizer(gradients, learning_rate)


def run(optimizer_class, start, gradients, **options):
    """Update three arrays for a few steps, and return their values."""
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    parameters = [Parameter(Tensor(array.astype(np.float32)), name=f"p{index}") for index, array in enumerate(start)]
    update = Update(optimizer_class(parameters, **options))
    for step in gradients:
        update(Tensor(LEARNING_RATE, ms.float32), *(Tensor(array.astype(np.float32)) for array in step))
    return [parameter.asnumpy() for parameter in parameters]


@pytest.fixture
def problem():
    generator = np.random.default_rng(0)
    shapes = [(4, 3, 3, 3), (4,), (5, 7)]
    start = [generator.normal(size=shape) for shape in shapes]
    gradients = [[generator.normal(size=shape) for shape in shapes] for _ in range(4)]
    return start, gradients


def adam_by_hand(start, gradients, *, l2=0.0, beta1=0.9, beta2=0.999, epsilon_hat=1e-8):
    parameters = [array.copy() for array in start]
    first = [np.zeros_like(array) for array in start]
    second = [np.zeros_like(array) for array in start]
    for t, step in enumerate(gradients, 1):
        for i, gradient in enumerate(step):
            decays = start[i].ndim > 1
            gradient = gradient + l2 * decays * parameters[i]
            first[i] = beta1 * first[i] + (1 - beta1) * gradient
            second[i] = beta2 * second[i] + (1 - beta2) * gradient**2
            rate = LEARNING_RATE * np.sqrt(1 - beta2**t) / (1 - beta1**t)
            parameters[i] = parameters[i] - rate * first[i] / (np.sqrt(second[i]) + epsilon_hat)
    return parameters


def adamw_by_hand(start, gradients, *, weight_decay=0.0, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """Loshchilov & Hutter 2019, algorithm 2, line by line."""
    parameters = [array.copy() for array in start]
    first = [np.zeros_like(array) for array in start]
    second = [np.zeros_like(array) for array in start]
    for t, step in enumerate(gradients, 1):
        for i, gradient in enumerate(step):
            first[i] = beta1 * first[i] + (1 - beta1) * gradient
            second[i] = beta2 * second[i] + (1 - beta2) * gradient**2
            first_corrected = first[i] / (1 - beta1**t)
            second_corrected = second[i] / (1 - beta2**t)
            decay = weight_decay * (start[i].ndim > 1) * parameters[i]
            step_of_adam = first_corrected / (np.sqrt(second_corrected) + epsilon)
            parameters[i] = parameters[i] - LEARNING_RATE * (step_of_adam + decay)
    return parameters


def assert_all_close(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_is_the_papers(problem, weight_decay):
    start, gradients = problem
    actual = run(Adam, start, gradients, weight_decay=weight_decay, beta1=0.8, beta2=0.95)
    assert_all_close(actual, adam_by_hand(start, gradients, l2=weight_decay, beta1=0.8, beta2=0.95))


def test_adamw_decays_apart_from_the_gradient(problem):
    start, gradients = problem
    actual = run(AdamW, start, gradients, weight_decay=0.5)
    assert_all_close(actual, adamw_by_hand(start, gradients, weight_decay=0.5))


def test_epsilon_is_where_each_paper_has_it():
    """Where gradients are as small as epsilon, its place before or after the correction shows."""
    generator = np.random.default_rng(1)
    shapes = [(4, 3, 3, 3), (4,)]
    start = [np.zeros(shape) for shape in shapes]
    gradients = [[1e-7 * generator.choice([-1, 1, 1, 1], shape) for shape in shapes] for _ in range(60)]
    algorithm_2 = adamw_by_hand(start, gradients)
    epsilon_hat = adam_by_hand(start, gradients)
    for a, b in zip(algorithm_2, epsilon_hat, strict=True):
        assert np.abs(a - b).max() > 0.02 * np.abs(a).max()
    for optimizer_class, expected in ((AdamW, algorithm_2), (Adam, epsilon_hat)):
        for a, b in zip(run(optimizer_class, start, gradients), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


def test_adamw_is_pytorchs(problem):
    torch = pytest.importorskip("torch")
    start, gradients = problem
    gradients = [[1e-7 * array for array in step] for step in gradients]
    references = [torch.nn.Parameter(torch.from_numpy(array.copy())) for array in start]
    groups = [{"params": [reference], "weight_decay": 0.5 if reference.ndim > 1 else 0.0} for reference in references]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    for step in gradients:
        for reference, gradient in zip(references, step, strict=True):
            reference.grad = torch.from_numpy(gradient)
        optimizer.step()
    expected = [reference.detach().numpy() for reference in references]
    assert_all_close(run(AdamW, start, gradients, weight_decay=0.5), expected)


def test_sgd_is_momentum_with_l2(problem):
    start, gradients = problem
    expected = [array.copy() for array in start]
    velocity = [np.zeros_like(array) for array in start]
    for step in gradients:
        for i, gradient in enumerate(step):
            velocity[i] = 0.9 * velocity[i] + gradient + 0.1 * (start[i].ndim > 1) * expected[i]
            expected[i] = expected[i] - LEARNING_RATE * velocity[i]
    assert_all_close(run(SGD, start, gradients, weight_decay=0.1, momentum=0.9), expected)


@pytest.mark.parametrize("optimizer_class", [Adam, AdamW, SGD])
def test_weight_decay_spares_biases_and_normalisation(problem, optimizer_class):
    start, _ = problem
    still = [[np.zeros_like(array) for array in start]] * 2
    end = run(optimizer_class, start, still, weight_decay=0.5)
    np.testing.assert_array_equal(end[1], start[1].astype(np.float32))
    assert np.abs(end[0]).sum() < np.abs(start[0]).sum()


@pytest.mark.parametrize(("optimizer_class", "states"), [(Adam, 2), (SGD, 1)])
def test_the_state_is_in_memory_before_the_first_step(optimizer_class, states):
    size = 32 * 2**20
    parameter = Parameter(Tensor(np.ones((size // 4 // 1024, 1024), np.float32)), name="large")
    process = psutil.Process()
    before = process.memory_info().rss
    optimizer = optimizer_class([parameter])
    grown = process.memory_info().rss - before
    assert grown > 0.9 * states * size
    kept = [state for state in optimizer.get_parameters() if state.name.endswith(".large")]
    assert len(kept) == states
    assert all(not state.asnumpy().any() and not state.requires_grad for state in kept)
