"""The project's settings as the tests run them. Servers come from `tests.plugins.servers`."""

from scheduling_project.settings import *  # noqa: F403
from scheduling_project.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "scheduling_project.demo", "scheduling_project.drills"]

# Row-level tests run inside one transaction, which a second connection could not see. Tests that are about
# two connections (races, scenarios) ask for the real alias.
WORKFLOW_ENGINE_DATABASE = "default"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
