"""The checks of a health report, one file per verdict, or two that belong together."""
