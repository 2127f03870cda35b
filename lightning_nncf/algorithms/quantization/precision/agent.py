"""AutoQ's agent: deep deterministic policy gradient of Stable-Baselines3, set up as HAQ did.

This is the one module that imports the libraries of the extra ``autoq``.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3 import DDPG
from stable_baselines3.common.buffers import ReplayBuffer
from torch import nn

from lightning_nncf.algorithms.quantization.precision.environment import PrecisionGame

__all__ = ["play"]

_SEED = 528
_HIDDEN = [300, 300]
_LAST_LAYER = 3e-3
_ACTOR_LR = 1e-4
_CRITIC_LR = 1e-3
_BATCH = 64
_TAU = 0.01
_DISCOUNT = 1.0
_NOISE = 0.5
_DECAY = 0.96
_DECAY_EPISODES = 100
_POOR_SHARE = 0.7


def play(game: PrecisionGame, episodes: int, warmup: int, scale: float) -> None:
    """Play a game again and again; it remembers the best outcome.

    Args:
        game: The game.
        episodes: How often, at least once.
        warmup: Episodes with random actions before the agent learns.
        scale: Factor from scores to rewards.
    """
    steps = len(game.decisions)
    agent = _Agent(
        "MlpPolicy",
        _Environment(game, scale),
        episodes=episodes,
        warmup=warmup,
        policy_kwargs={"net_arch": _HIDDEN},
        buffer_size=max(warmup, 1) * (steps + 1),
        learning_starts=warmup * steps,
        batch_size=_BATCH,
        tau=_TAU,
        gamma=_DISCOUNT,
        train_freq=1,
        gradient_steps=1,
        replay_buffer_class=_EpisodeBuffer,
        seed=_SEED,
        device="cpu",
    )
    agent.learn(total_timesteps=episodes * steps)


class _Environment(gymnasium.Env[npt.NDArray[np.float32], npt.NDArray[np.float32]]):
    """The game as Gymnasium knows it."""

    def __init__(self, game: PrecisionGame, scale: float) -> None:
        self.game = game
        self.scale = scale
        length = len(game.reset())
        self.observation_space = spaces.Box(0.0, 1.0, (length,), np.float32)
        self.action_space = spaces.Box(0.0, 1.0, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        return self.game.reset(), {}

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        observation = self.game.act(float(action[0]))
        if not self.game.is_over:
            return observation, 0.0, False, False, {}
        score, actions = self.game.finish()
        return observation, self.scale * score / len(actions), True, False, {"actions": actions}


class _EpisodeBuffer(ReplayBuffer):
    """Stores an episode once it is over: each step gets an equal part of the reward, and the action that counted.

    When it is full, new steps take the place of random ones among those with poor rewards.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: list[tuple[Any, ...]] = []

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: list[dict[str, Any]]) -> None:
        self._waiting.append((obs, next_obs, done, infos))
        if not done[0]:
            return
        for step, (before, after, over, info) in enumerate(self._waiting):
            if self.full:
                poor = np.argsort(self.rewards[:, 0])[: max(int(_POOR_SHARE * self.buffer_size), 1)]
                self.pos = int(np.random.choice(poor))
            taken = np.full_like(action, 2 * infos[0]["actions"][step] - 1)
            super().add(before, after, taken, reward, over, info)
        self._waiting = []


class _Agent(DDPG):
    """DDPG with different learning rates for actor and critic, and noise that keeps actions in their range."""

    def __init__(self, *args: Any, episodes: int, warmup: int, **kwargs: Any) -> None:
        self._decay = _DECAY ** (_DECAY_EPISODES / episodes)
        self._warmup = warmup
        super().__init__(*args, **kwargs)
        for network in (self.actor, self.actor_target, self.critic, self.critic_target):
            last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
            nn.init.uniform_(last.weight, -_LAST_LAYER, _LAST_LAYER)
            nn.init.uniform_(last.bias, -_LAST_LAYER, _LAST_LAYER)
        self.actor_target.load_state_dict(self.actor.state_dict())
        self.critic_target.load_state_dict(self.critic.state_dict())

    def _update_learning_rate(self, optimizers: Any) -> None:
        for optimizer, rate in ((self.actor.optimizer, _ACTOR_LR), (self.critic.optimizer, _CRITIC_LR)):
            for group in optimizer.param_groups:
                group["lr"] = rate

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        if self.num_timesteps < learning_starts:
            action = np.random.uniform(size=(n_envs, 1)).astype(np.float32)
        else:
            assert self._last_obs is not None
            mean, _ = self.predict(self._last_obs, deterministic=True)
            spread = _NOISE * self._decay ** max(self._episode_num - self._warmup, 0)
            action = np.array([[_truncated_normal(float(each), spread)] for each in mean[:, 0]], dtype=np.float32)
        return action, self.policy.scale_action(action)


def _truncated_normal(mean: float, spread: float) -> float:
    """Draw from a normal distribution until the number lies from 0 to 1."""
    while True:
        drawn = float(np.random.normal(mean, spread))
        if 0.0 <= drawn <= 1.0:
            return drawn
