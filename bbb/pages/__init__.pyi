from .demo import DemoError as DemoError
from .demo import write_demo as write_demo
from .page import as_json as as_json
from .page import asset as asset
from .page import make_page as make_page
from .page import write_page as write_page
from .report import make_report as make_report
from .report import write_report as write_report
