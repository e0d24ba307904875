"""Senoscope: which fields of view hold senescent cells, while the microscope still scans."""
