"""What Alembic runs for each of its commands: the steps go through the caller's connection and transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
