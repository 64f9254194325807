import sys

from tests.clients.frameworks.run import main

sys.exit(main())
