"""python -m vmproxy"""

from vmproxy.cli import main

main()
