"""The command ``kest``: verify and inspect passports, make keys, see whose identity a process has, test policies."""
