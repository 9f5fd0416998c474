"""What the application is configured with: ``COLLAB_SECRET``, ``COLLAB_DATABASE``, ``COLLAB_SESSION_MINUTES``."""

import secrets

from pydantic_settings import BaseSettings, SettingsConfigDict


class Config(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="COLLAB_")

    # A new one at each start logs everybody out. Set it, the same for all workers, where that is not wanted.
    secret: str = secrets.token_hex()
    database: str = "sqlite+aiosqlite:///collab.db"
    session_minutes: float = 60.0


config = Config()
