"""The demo: an ordinary installed app with step tasks, as a stranger's would be (see `EXTRA_APPS`)."""
