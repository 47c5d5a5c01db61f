import numpy as np, asyncio, threading, time
import triton_python_backend_utils as pb_utils
FINAL=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
def out(x): return pb_utils.InferenceResponse([pb_utils.Tensor('Y',np.array([x],np.int32))])
class TritonPythonModel:
  def execute(self, requests):
    s=requests[0].get_response_sender(); i=0
    while not s.is_cancelled() and i<500: s.send(out(i)); i+=1; time.sleep(.01)
    print('stopped at',i,s.is_cancelled(),flush=True); s.send(flags=FINAL)
