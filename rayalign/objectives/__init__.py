"""The losses a run can choose: settings, and how each uses the model's answers. One objective a file; see table.py."""
