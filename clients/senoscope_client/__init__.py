"""The wire format and the Python clients of Senoscope: all that an acquisition PC installs."""
