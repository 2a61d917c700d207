"""The command ``kest``: verify and inspect passports, make keys, see which identity a process has."""
