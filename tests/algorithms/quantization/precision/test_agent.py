from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import pytest
import torch

from lightning_nncf.algorithms.quantization.precision.environment import Decision, PrecisionGame

agent = pytest.importorskip("lightning_nncf.algorithms.quantization.precision.agent")


@pytest.mark.parametrize("wanted", [2, 8])
def test_the_agent_learns_what_the_score_wants(wanted: int) -> None:
    scores: list[float] = []

    def score(bits: Sequence[int]) -> float:
        scores.append(1.0 + sum(each == wanted for each in bits))
        return scores[-1]

    decisions = [Decision(bits=(2, 4, 8), features=(float(index), index % 2), size=10) for index in range(6)]
    game = PrecisionGame(decisions, (2, 4, 8), fixed_bits=0, total=60, target=1.0, score=score)
    with torch.enable_grad():
        agent.play(game, 80, 20, 1.0)
    assert len(scores) == 80
    assert mean(scores[-10:]) > mean(scores[:20]) + 1
    assert game.best is not None
    assert game.best[0] == max(scores)


def test_an_episode_is_stored_whole_with_its_reward_shared_out() -> None:
    decisions = [Decision(bits=(2, 4), features=(float(index),), size=10) for index in range(3)]
    game = PrecisionGame(decisions, (2, 4), fixed_bits=0, total=30, target=0.07, score=lambda bits: 6.0)
    environment = agent._Environment(game, 0.5)
    buffer = agent._EpisodeBuffer(8, environment.observation_space, environment.action_space, device="cpu")
    observation, _ = environment.reset()
    for action in (0.1, 0.5, 0.9):
        after, reward, done, _, info = environment.step(torch.tensor([action]).numpy())
        assert buffer.pos == 0
        buffer.add(observation, after, torch.tensor([[2 * action - 1]]).numpy(), [reward], [done], [info])
        observation = after
    assert buffer.pos == 3
    assert buffer.rewards[:3, 0].tolist() == [1.0, 1.0, 1.0]  # half of 6, shared by three
    # 0.07 of 32 bits leaves 2 bits each: what counts is the action that means them, on a scale from -1 to 1
    assert buffer.actions[:3, 0, 0].tolist() == pytest.approx([-0.8, -0.75, -0.75])
    assert buffer.dones[:3, 0].tolist() == [0.0, 0.0, 1.0]


def test_a_full_buffer_replaces_poor_episodes_alone() -> None:
    decisions = [Decision(bits=(2, 4), features=(float(index),)) for index in range(2)]
    game = PrecisionGame(decisions, (2, 4), fixed_bits=16, total=1, target=1.0, score=lambda bits: 1.0)
    environment = agent._Environment(game, 1.0)
    buffer = agent._EpisodeBuffer(10, environment.observation_space, environment.action_space, device="cpu")
    observation, _ = environment.reset()
    for reward in (9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0):
        buffer.add(observation, observation, [[0.0]], [0.0], [False], [{}])
        buffer.add(observation, observation, [[0.0]], [reward], [True], [{"actions": [0.5, 0.5]}])
    assert buffer.full
    # the best of the first five episodes are two steps of ten, so never among the poor seven
    assert sorted(buffer.rewards[:, 0].tolist())[-2:] == [9.0, 9.0]


def test_noise_keeps_actions_in_their_range() -> None:
    drawn = [agent._truncated_normal(mean, 0.5) for mean in (0.0, 0.5, 1.0) for _ in range(50)]
    assert min(drawn) >= 0
    assert max(drawn) <= 1
    assert len(set(drawn)) == len(drawn)
